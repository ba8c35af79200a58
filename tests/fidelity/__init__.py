"""Whether what is in a namespace comes back: cases as data, judged by real kernels, printed as a table."""
