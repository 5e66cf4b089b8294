"""Persistent storage: atomic writes, locks and checksums for all packages above this one.

:mod:`~vlaser_gym.storage.locks`: one writer at a time, and the second is told who. :mod:`~vlaser_gym.storage.files`:
files that are whole or not there, by way of temporaries that a later start removes. :mod:`~vlaser_gym.storage.lines`:
files that grow by lines. :mod:`~vlaser_gym.storage.syncer`: the disk behind a thread.
:mod:`~vlaser_gym.storage.checksums`: what a reader compares. :mod:`~vlaser_gym.storage.interrupts`: Ctrl-C and SIGTERM
between two writes, never inside one.
"""
