-- Where an answer came from, how long it waited for its turn, and search in words.
-- A running older version sees three columns more, which it leaves empty.

alter table public.interactions
  -- HIT: from the cache; JOINED: of an identical call under way; MISS and BYPASS: of the model.
  add column cache text,
  -- Which LM Studio answered.
  add column upstream text,
  -- Until its turn came.
  add column queued_ms double precision;
