"""The commands of the command line; what is heavy is imported when one is called."""
