"""Objects of a snapshot to files of torch and pandas. Unpickles, so it runs in a process of its own."""
