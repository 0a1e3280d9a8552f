"""Federation: a participant's work, aggregation, the round's state machine, and a whole run in one process.

Nothing is loaded here: a device takes part without a coordinator in its memory.
"""
