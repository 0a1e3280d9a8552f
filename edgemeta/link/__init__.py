"""What both ends of the wire share: trust, join files, addresses, and word to the service manager."""
