"""The device's page: who stands before a device teaches it from a browser. No picture leaves the device by it."""
