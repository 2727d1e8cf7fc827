"""The whole product on stage: a seeded market sends real HTTP traffic to a real deployment.

`run` wires it. `deployment` starts the database, `serve` and `jobs`; `traffic` is a process of its
own that plays the visitors; `acts` are what happens on stage; `ledger` keeps what was seen;
`summary` says which promises held.
"""
