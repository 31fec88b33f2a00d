"""What happens to one request, a file per stage, in the order of the list in app/main.py."""
