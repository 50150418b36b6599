-- When somebody wanted a move to be cancelled and was told that it will be.
ALTER TABLE migrations ADD COLUMN cancel_asked_at INTEGER;
