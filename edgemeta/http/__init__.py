"""HTTP as a gateway speaks it: bytes to events, connections, a listener, TLS at the door. It knows of no run."""
