"""What every room may use and none of them is about: isolation of the user's model, inputs, silence, text."""
