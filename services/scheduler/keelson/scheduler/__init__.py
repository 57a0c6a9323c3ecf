"""The scheduler: turns desired scale into instances on nodes, by commands like anyone else."""
