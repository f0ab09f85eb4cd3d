"""How fastsync gets into a program: the runner, the swap, processes that are started."""
