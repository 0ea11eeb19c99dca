-- Conversations of /chat by name, of each caller its own. Their turns are the interactions of that session.
-- A running older version sees a new table; what it answers meanwhile is listed once the session goes on.

create table public.conversations (
  caller text not null,
  -- The name that the caller gave it.
  id text not null,
  -- The first words of its first question.
  title text not null,
  created_at timestamptz not null,
  last_used_at timestamptz not null,
  -- Of its oldest turns, where they no longer fit into the model's context: up to and including the one
  -- that was answered then, and how many they are.
  summary text,
  summary_until_at timestamptz,
  summary_until_id uuid,
  summary_turns integer not null default 0,
  primary key (caller, id)
);
create index conversations_last_used on public.conversations (caller, last_used_at desc, id desc);

alter table public.conversations enable row level security;
create policy app on public.conversations to pugmark_app using (true) with check (true);
grant select, insert, update, delete on public.conversations to pugmark_app;

insert into public.conversations (caller, id, title, created_at, last_used_at)
select
  caller,
  session_id,
  coalesce(left((array_agg(prompt -> -1 ->> 'content' order by created_at, id))[1], 80), session_id),
  date_trunc('milliseconds', min(created_at)),
  date_trunc('milliseconds', max(created_at))
from public.interactions
where session_id is not null and route = '/chat' and jsonb_typeof(prompt) = 'array'
group by caller, session_id;
