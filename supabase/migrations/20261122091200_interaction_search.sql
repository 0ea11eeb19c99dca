-- Search in the words of questions and answers. Repeats from the cache are left out: they say nothing new, and to take
-- their words apart would cost more than everything else about them.
-- A running older version sees a new function, and writes a little slower.

-- Of the prompt the last message, which is what was new. Cut, because a tsvector has 1 MiB at most.
create function public.interaction_words(prompt jsonb, response text) returns tsvector
  language sql immutable parallel safe
  return to_tsvector('simple',
    left(coalesce(prompt -> -1 ->> 'content', prompt #>> '{}', ''), 50000) || ' ' || left(coalesce(response, ''), 50000));

create index interactions_words on public.interactions using gin (public.interaction_words(prompt, response))
  -- Rows are sorted into the index many at a time: three times the rate of 1 MiB, for some tens of milliseconds a search.
  with (gin_pending_list_limit = 32768)
  where not cached;
