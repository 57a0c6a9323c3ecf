-- create_baseline: a table of the shape of log.events, indexes and all, that counts its positions itself.
-- Nothing but the rows is kept there: no order of commits, no head, no keys, no claims. Run as the log's owner.
CREATE SCHEMA bench;
CREATE SEQUENCE bench.positions CACHE 1;
CREATE TABLE bench.events (LIKE log.events INCLUDING ALL);
ALTER TABLE bench.events ALTER COLUMN position SET DEFAULT nextval('bench.positions')
