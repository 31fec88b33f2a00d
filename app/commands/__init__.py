"""The subcommands of `pointsman`, a file each; app/cli.py puts them together."""
