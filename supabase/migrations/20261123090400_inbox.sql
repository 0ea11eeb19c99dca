-- What phones that cannot reach a station leave in the project, for one station to fetch; and the keys they do it with.
-- A running older version sees new tables.

create table public.device_keys (
  id uuid primary key,
  -- Key of the device that it may report for; * for any.
  device text not null check (length(device) between 1 and 200),
  -- SHA-256 of the secret, in hexadecimal: the secret itself is nowhere.
  key_hash text not null unique check (key_hash ~ '^[0-9a-f]{64}$'),
  created_at timestamptz not null default now(),
  revoked_at timestamptz
);

create table public.inbox (
  -- Of the delivery: the same one sent again has the same.
  id uuid primary key,
  device text not null,
  -- Array of fixes as they were read; emptied once a station has them.
  fixes jsonb not null check (jsonb_typeof(fixes) = 'array'),
  received_at timestamptz not null default now(),
  -- The station that is fetching it, and until when that is believed without hearing from it.
  leased_by uuid,
  leased_until timestamptz,
  taken_by uuid,
  taken_at timestamptz
);
create index inbox_waiting on public.inbox (received_at, id) where taken_at is null;
create index inbox_taken on public.inbox (taken_at) where taken_at is not null;

-- In a station: what it took, so that it takes nothing twice.
create table sync.inbox_taken (
  id uuid primary key,
  taken_at timestamptz not null default now()
);

alter table public.device_keys enable row level security;
alter table public.inbox enable row level security;
alter table sync.inbox_taken enable row level security;
create policy service on public.device_keys to service_role using (true) with check (true);
create policy service on public.inbox to service_role using (true) with check (true);
create policy app on sync.inbox_taken to pugmark_app using (true) with check (true);
revoke all on public.device_keys, public.inbox from anon, authenticated, service_role;
grant select, insert, update, delete on public.device_keys, public.inbox to service_role;
grant select, insert, delete on sync.inbox_taken to pugmark_app;

-- The oldest deliveries that no other station is fetching, for two minutes this station's; again those it has already.
create function public.inbox_take(station uuid, row_limit integer)
returns table (id uuid, device text, fixes jsonb, received_at timestamptz)
language sql set search_path = ''
begin atomic
  update public.inbox i set leased_by = station, leased_until = now() + interval '2 minutes'
  where i.id in (
    select waiting.id from public.inbox waiting
    where waiting.taken_at is null
      and (waiting.leased_until is null or waiting.leased_until < now() or waiting.leased_by = station)
    order by waiting.received_at, waiting.id limit row_limit
    for update skip locked
  )
  returning i.id, i.device, i.fixes, i.received_at;
end;

-- These are stored in that station. Says how many were not taken before. Who sends one again within a month is told
-- that it is there; longer than that nothing is kept of it.
create function public.inbox_acknowledge(station uuid, ids uuid[]) returns integer
language plpgsql set search_path = '' as $$
declare
  taken integer;
begin
  update public.inbox
  set taken_by = station, taken_at = now(), fixes = '[]', leased_by = null, leased_until = null
  where id = any (ids) and taken_at is null;
  get diagnostics taken = row_count;
  delete from public.inbox where taken_at < now() - interval '30 days';
  return taken;
end
$$;

revoke execute on function public.inbox_take(uuid, integer), public.inbox_acknowledge(uuid, uuid[])
  from public, anon, authenticated;
grant execute on function public.inbox_take(uuid, integer), public.inbox_acknowledge(uuid, uuid[]) to service_role;
