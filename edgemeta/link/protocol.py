"""What devices and gateways have to agree on before they can say anything: the version, and the headers of our own."""

PROTOCOL = 1  # of requests and messages; the protocol page defines it
NUMBER = "X-Edgemeta-Number"  # comes with each request: what the device drew when it started
SECONDS_LEFT = "X-Edgemeta-Seconds-Left"  # comes with a task: for how long the gateway waits for its result
