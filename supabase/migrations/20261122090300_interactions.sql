-- Every call of a model: what was asked, what came back, how long it took. The reader role cannot see it.
-- A running older version sees a new table.

create table public.interactions (
  id uuid primary key,
  created_at timestamptz not null,
  -- Which door it came by: /chat, /v1/chat/completions, …
  route text not null,
  -- Name of the key that asked, or local.
  caller text not null,
  request_id text not null,
  session_id text,
  run_id uuid,
  model text not null,
  -- The messages as they were sent to the model.
  prompt jsonb not null,
  parameters jsonb not null default '{}',
  response text,
  reasoning text,
  tool_calls jsonb,
  finish_reason text,
  prompt_tokens integer,
  completion_tokens integer,
  reasoning_tokens integer,
  cached boolean not null default false,
  -- ok, or the code of the error that was answered.
  outcome text not null,
  error text,
  -- Until the first token; null where none came.
  first_token_ms double precision,
  processing_time_ms double precision not null
);
create index interactions_created_at on public.interactions (created_at desc, id desc);
create index interactions_session on public.interactions (session_id, created_at) where session_id is not null;
create index interactions_run on public.interactions (run_id) where run_id is not null;

alter table public.interactions enable row level security;
create policy app on public.interactions to pugmark_app using (true) with check (true);
grant select, insert, update, delete on public.interactions to pugmark_app;
