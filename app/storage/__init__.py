"""Everything that Adscent keeps in PostgreSQL; rows stay inside, dataclasses come out."""
