-- Written to find out whether anything can be written. It means nothing.
CREATE TABLE write_probe (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    tries INTEGER NOT NULL
) STRICT;
