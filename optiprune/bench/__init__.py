"""A bench for solvers: instances, an equal-time protocol, records, statistics, tables and plots.

Rooms: ``instances`` (what is solved), ``protocol`` (how a solve is measured), ``records`` (what is
written down), ``statistics`` (what follows from it), ``report`` (how it is shown). Nothing here
loads torch or matplotlib until trained layers are cut or a plot is drawn.
"""
