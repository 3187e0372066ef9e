"""`manage.py simulatefairness`: one load under three rules of order, and what each makes of it. No database, no clock.

    workload.py   who asks for what, and when: Zipf clients with sizes by chance, or a trace's
    policies.py   who is next: the fair order (fairness.py), first in first out, a job each in turn
    running.py    slots, service times, events; under full load, and as the calls arrive
    measures.py   shares, Jain's index, gaps, waits
    report.py     the same as a table and as JSON
    picture.py    the same as an SVG

Invariant: the same options and seed give the same figures, to the last digit.
"""
