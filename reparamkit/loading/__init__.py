"""Opening whatever the user has, safely: nothing of a file runs before it was looked at."""
