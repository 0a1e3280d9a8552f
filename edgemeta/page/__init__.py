"""What a browser gets: pages of one file that need nothing beside it, and are read on a phone or printed."""
