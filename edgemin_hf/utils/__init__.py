"""What every package may need: atomic files, packages of extras."""
