"""Runs: notebooks and scripts executed by a process of ours that no closing client can stop. Never unpickles."""
