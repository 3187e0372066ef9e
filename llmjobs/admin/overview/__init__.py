"""The overview: what `/admin/` opens on, and this app's index in a host's admin.

    reading.py   what is asked of the database, and how often
    page.py      words, order and links of what is shown; `templatetags/llmjobs_overview.py` puts it on a page
    rows.py      the same of its tables: tiers, models, workers, dead letters
    pictures.py  which lines are drawn, and the table of the same numbers
    charts.py    lines as SVG
    number.py    a number, the list behind it, and whether it is live; words.py says numbers as people read them
    links.py     the list behind a number, for who may open it

Numbers only: whoever may see jobs may see all of it.
"""
