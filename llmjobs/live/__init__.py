"""Live progress: viewers read the event log, and are woken when there is more. Data goes one way.

The road of an event, and the module that a reader opens for each step:

    wake      listening.py     one LISTEN connection a process hears "there is more, from here on"
    read      hub.py           one query for all jobs that were woken, over reading.py's connection
    hand      watches.py       to the viewers of each; viewers.py bounds what waits for one that is slow
    show      following.py     history first, then live, with no gap and no repeat: batches of events.py's log
    send      sse.py, consumers.py    the two roads to a browser; admission.py says who may, from where on

The log is the truth: what a viewer has seen is a number (`seq`), and with it any web process goes on where another
ended.
"""
