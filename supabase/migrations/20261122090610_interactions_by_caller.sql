-- What a caller used today is summed from this index alone.
-- A running older version sees no difference.

create index interactions_caller on public.interactions (caller, created_at)
  include (cached, prompt_tokens, completion_tokens);
