"""Networks of other libraries by name, each library imported when a name of its own is asked for."""
