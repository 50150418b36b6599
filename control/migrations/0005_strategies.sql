-- What a container's owner accepts, and how a move was asked to be carried out.
ALTER TABLE containers ADD COLUMN allow_post_copy INTEGER NOT NULL DEFAULT 0;
ALTER TABLE migrations ADD COLUMN strategy TEXT;         -- JSON; NULL: the best
