"""Optional compiled loops for the CPU, which compute the same as torch."""
