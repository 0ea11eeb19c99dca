-- Rows name the station that made them, and what stations exchange is mirrored.
-- A running older version sees new columns that it leaves empty. Its /chat fails for requests with a session_id until it
-- is replaced: two stations may each have a conversation of the same caller and name.

create table public.stations (
  id uuid primary key,
  name text not null check (length(name) between 1 and 200),
  created_at timestamptz not null default now()
);
alter table public.stations enable row level security;
create policy app on public.stations to pugmark_app using (true) with check (true);
create policy reader on public.stations for select to pugmark_reader using (true);
grant select, insert, update, delete on public.stations to pugmark_app;
grant select on public.stations to pugmark_reader;

alter table public.conversations drop constraint conversations_pkey;
alter table public.conversations add column conversation_id uuid primary key default gen_random_uuid();

-- What belongs together (the deployments of a device) is replaced in one go, and need not be free of overlap halfway.
alter table public.deployments drop constraint deployments_device_id_tstzrange_excl;
alter table public.deployments add constraint deployments_one_subject_at_a_time
  exclude using gist (device_id with =, tstzrange(started_at, ended_at) with &&) deferrable initially deferred;

select sync.mirror('public.stations', is_edited => true, rank => 5);
select sync.mirror('public.devices', is_edited => true, rank => 10);
select sync.mirror('public.subjects', is_edited => true, rank => 10);
select sync.mirror('public.deployments', is_edited => true, rank => 20);
select sync.mirror('public.positions', is_edited => false, rank => 30);
select sync.mirror('public.interactions', is_edited => false, rank => 30);
select sync.mirror('public.conversations', is_edited => true, rank => 40);

-- A caller's own are those of this station.
create unique index conversations_name on public.conversations (caller, id) where station_id is null;

-- What a caller used today is summed from this index alone.
drop index public.interactions_caller;
create index interactions_caller on public.interactions (caller, created_at)
  include (cached, cache, prompt_tokens, completion_tokens)
  where station_id is null;
