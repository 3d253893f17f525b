"""The lab's contracts: pure values and functions, no sockets, clocks or files.

Everything that the portal may import from wsnode lives here.
"""
