-- What a caller used today is summed from the index alone again, now that an answer which several shared counts once.
-- A running older version sees no difference.

drop index public.interactions_caller;
create index interactions_caller on public.interactions (caller, created_at)
  include (cached, cache, prompt_tokens, completion_tokens);
