"""What runs in the user's kernel. The only folder that knows IPython."""
