"""What a store of thousands of snapshots costs: to list, to save into, to deduplicate against."""
