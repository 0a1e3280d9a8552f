"""How layers are computed, and the memory and threads that it takes; these modules know no layer."""
