"""HTTP both ways: it carries messages and asks the state machine; it holds no policy."""
