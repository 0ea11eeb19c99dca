-- Who may do what in a project. Nobody sees anything without an account, and with one only whom the owner made a member:
-- members read tracking data, and some may edit what is tracked. The service role does what the mirror needs.
-- A running older version sees no difference.

create table public.members (
  -- Of auth.users, where there is such a table.
  user_id uuid primary key,
  -- Whether the member may edit subjects and deployments.
  can_write boolean not null default false,
  created_at timestamptz not null default now()
);
alter table public.members enable row level security;

-- A project grants everything on new tables to these roles by itself; row level security does not keep anybody from
-- emptying a table.
revoke all on public.members, public.last_positions, public.files, public.file_chunks, public.batches, public.batch_lines
  from anon, authenticated, service_role;
revoke execute on function public.ensure_positions_partition(timestamptz), public.interaction_words(jsonb, text)
  from public, anon, authenticated, service_role;
-- Its words are taken apart as whoever writes an interaction.
grant execute on function public.interaction_words(jsonb, text) to pugmark_app, service_role;
-- Called before positions of a month are sent: a trigger cannot make the partition that its own row lacks.
grant execute on function public.ensure_positions_partition(timestamptz) to service_role;

create policy service on public.members to service_role using (true) with check (true);
create policy own on public.members for select to authenticated using (user_id = (select auth.uid()));
grant select, insert, update, delete on public.members to service_role;
grant select on public.members to authenticated;

create policy service on public.last_positions to service_role using (true) with check (true);
grant select on public.last_positions to service_role;

do $$
declare
  readable text;
begin
  foreach readable in array array['stations', 'devices', 'subjects', 'deployments', 'positions', 'last_positions'] loop
    execute format(
      'create policy member on public.%I for select to authenticated
         using ((select exists (select from public.members where user_id = (select auth.uid()))))',
      readable
    );
    execute format('grant select on public.%I to authenticated', readable);
  end loop;
end
$$;

create policy editor on public.subjects to authenticated
  using ((select exists (select from public.members where user_id = (select auth.uid()) and can_write)));
create policy editor on public.deployments to authenticated
  using ((select exists (select from public.members where user_id = (select auth.uid()) and can_write)));
-- Not the columns of the mirror: what a member edits is an edit made in the project.
grant insert (id, name, species, attributes), update (name, species, attributes) on public.subjects to authenticated;
grant insert (id, device_id, subject_id, started_at, ended_at), update (subject_id, started_at, ended_at), delete
  on public.deployments to authenticated;

-- As before, and without the grants that a project gives to new tables.
create or replace function public.ensure_positions_partition(at timestamptz) returns void
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
  execute format('revoke all on public.%I from anon, authenticated, service_role', partition_name);
  execute format(
    'alter table public.positions attach partition public.%I for values from (%L) to (%L)',
    partition_name,
    first_day at time zone 'UTC',
    (first_day + interval '1 month') at time zone 'UTC'
  );
end
$$;

do $$
declare
  partition_name text;
begin
  for partition_name in
    select inhrelid::regclass::text from pg_catalog.pg_inherits where inhparent = 'public.positions'::regclass
  loop
    execute format('revoke all on %s from anon, authenticated, service_role', partition_name);
  end loop;
end
$$;
