"""The 56 ways in which hosted models surprise their clients, one by one, over real sockets.

The numbers are those of the list that was made of the providers' documentation before the first line was written.
"""
