"""What networks are held in: a host reads one as values, runs its operators, and writes layers back."""
