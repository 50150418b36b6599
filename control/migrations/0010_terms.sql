-- How a move was asked to be carried out, beside its strategy. NULL: without a limit.
ALTER TABLE migrations ADD COLUMN max_downtime_ms INTEGER;
ALTER TABLE migrations ADD COLUMN bandwidth_bytes_per_s INTEGER;
