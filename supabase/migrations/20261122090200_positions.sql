-- Positions, a partition for each month, and for each device the time of its last one.
-- A running older version sees new tables and a new function.

create table public.positions (
  -- No foreign key: it would cost a look-up for each row, and the only writer takes the id from devices.
  device_id uuid not null,
  time timestamptz not null,
  lat double precision not null check (lat between -90 and 90),
  lon double precision not null check (lon between -180 and 180),
  altitude_m double precision,
  accuracy_m double precision,
  speed_mps double precision,
  heading_deg double precision,
  -- 0 to 1
  battery double precision,
  -- Why this fix is held to be wrong; null for a good one. Outliers are kept, and left out unless asked for.
  outlier text,
  -- Fixes of different segments are not joined: what lies between them was not travelled, or not recorded.
  segment text,
  attributes jsonb,
  received_at timestamptz not null default now(),
  -- Makes every repeat harmless, and is the index that tracks are read by.
  primary key (device_id, time)
) partition by range (time);

-- Kept by the time of the fix, not of its arrival: a late fix never replaces a newer one.
create table public.last_positions (
  device_id uuid primary key,
  time timestamptz not null
);

-- Makes the partition for a month, where it is absent. Runs as its owner, because the servers' role may not
-- change the schema, and takes a lock, because two writers may need the same month at once. Made apart and then
-- attached: made as a partition at once, it would have to wait for every reader, and all others for it.
create function public.ensure_positions_partition(at timestamptz) returns void
language plpgsql security definer set search_path = '' as $$
declare
  first_day timestamp := date_trunc('month', at at time zone 'UTC');
  partition_name text := 'positions_y' || to_char(first_day, 'YYYY') || 'm' || to_char(first_day, 'MM');
begin
  if at < '1970-01-01T00:00:00Z' or at >= '2200-01-01T00:00:00Z' then
    raise exception 'no partition for %', at using errcode = 'datetime_field_overflow';
  end if;
  if to_regclass('public.' || partition_name) is not null then
    return;
  end if;
  perform pg_advisory_xact_lock(7203, 1);
  -- Not to_regclass: it may still remember that the table was absent before the wait for the lock.
  if exists (
    select from pg_catalog.pg_class
    where relname = partition_name and relnamespace = 'public'::regnamespace
  ) then
    return;
  end if;
  execute format('create table public.%I (like public.positions including all)', partition_name);
  execute format('alter table public.%I enable row level security', partition_name);
  execute format(
    'alter table public.positions attach partition public.%I for values from (%L) to (%L)',
    partition_name,
    first_day at time zone 'UTC',
    (first_day + interval '1 month') at time zone 'UTC'
  );
end
$$;
revoke execute on function public.ensure_positions_partition(timestamptz) from public;
grant execute on function public.ensure_positions_partition(timestamptz) to pugmark_app;

alter table public.positions enable row level security;
alter table public.last_positions enable row level security;

create policy app on public.positions to pugmark_app using (true) with check (true);
create policy app on public.last_positions to pugmark_app using (true) with check (true);
create policy reader on public.positions for select to pugmark_reader using (true);
create policy reader on public.last_positions for select to pugmark_reader using (true);

grant select, insert, update, delete on public.positions, public.last_positions to pugmark_app;
grant select on public.positions, public.last_positions to pugmark_reader;
