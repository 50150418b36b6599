-- What an edge's owner had declared when something happened there.
CREATE INDEX ledger_attributes_by_edge ON ledger_entries (edge, number) WHERE kind = 'attributes';
