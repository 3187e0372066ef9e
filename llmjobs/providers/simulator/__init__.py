"""The provider simulator: a real HTTP server in a process of its own that speaks OpenAI's API, with faults on
demand.

The way of a call, and the module for each step:

    server.py       the ports, and the control routes              listener.py  a port that can refuse
    wire.py         requests off a connection                      playback.py  an answer onto it, in its time
    provider.py     judges a call: its faults, its limits, its answer
    calls.py        what a call asks for                           fields.py    and what is wrong with it
    speech.py       what is said to it                             words.py     token by token
    chat.py  responses.py  embeddings.py                           how each endpoint writes that down
    rehearsed.py    what a test told it to say
    generations.py  responses in the background, which go on by themselves
    answers.py      an answer as a value, and as a fault leaves it
    faults.py       what can go wrong, by name
    limits.py       requests and tokens a minute, by four kinds of window
    ledger.py       every call that was seen, and what it cost
    control.py      what `POST /_control` may change
    command.py      the command line

It needs the standard library and httptools: no Django, no SDK, no database, so that it starts in a tenth of a
second and leaves the cores to what it is called by.
"""
