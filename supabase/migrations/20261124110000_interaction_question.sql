-- Of a question that has pictures only its words, wherever they stand, are searched and shown.
-- A running older version sees another search index, and still shows such a question as JSON.

-- The last message of a prompt, which is what was new, without what is no text in it.
create function public.interaction_question(prompt jsonb) returns text
  language sql immutable parallel safe
  return case jsonb_typeof(prompt -> -1 -> 'content')
    when 'array' then (
      select string_agg(part ->> 'text', ' ' order by n)
      from jsonb_array_elements(prompt -> -1 -> 'content') with ordinality as parts (part, n)
    )
    else coalesce(prompt -> -1 ->> 'content', prompt #>> '{}')
  end;

revoke execute on function public.interaction_question(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.interaction_question(jsonb) to pugmark_app, service_role;

-- Cut, because a tsvector has 1 MiB at most.
create or replace function public.interaction_words(prompt jsonb, response text) returns tsvector
  language sql immutable parallel safe
  return to_tsvector('simple',
    left(coalesce(public.interaction_question(prompt), ''), 50000) || ' ' || left(coalesce(response, ''), 50000));

reindex index public.interactions_words;
