"""What an enemy does to a store that he can write into, and what must not come of it."""
