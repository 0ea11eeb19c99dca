-- What is tracked, what reports, and which device was on which subject when.
-- A running older version sees three new tables.

create extension if not exists btree_gist with schema extensions;

create table public.subjects (
  id uuid primary key,
  name text not null unique check (length(name) between 1 and 200),
  species text check (length(species) <= 200),
  attributes jsonb not null default '{}',
  created_at timestamptz not null default now()
);

create table public.devices (
  id uuid primary key,
  -- What the device calls itself in its reports.
  key text not null unique check (length(key) between 1 and 200),
  created_at timestamptz not null default now()
);

create table public.deployments (
  id uuid primary key,
  device_id uuid not null references public.devices (id),
  subject_id uuid not null references public.subjects (id),
  started_at timestamptz not null default '-infinity',
  ended_at timestamptz not null default 'infinity',
  created_at timestamptz not null default now(),
  check (started_at < ended_at),
  -- A device is on one subject at a time, or its fixes would belong to two.
  exclude using gist (device_id with =, tstzrange(started_at, ended_at) with &&)
);
create index deployments_subject on public.deployments (subject_id);

alter table public.subjects enable row level security;
alter table public.devices enable row level security;
alter table public.deployments enable row level security;

create policy app on public.subjects to pugmark_app using (true) with check (true);
create policy app on public.devices to pugmark_app using (true) with check (true);
create policy app on public.deployments to pugmark_app using (true) with check (true);
create policy reader on public.subjects for select to pugmark_reader using (true);
create policy reader on public.devices for select to pugmark_reader using (true);
create policy reader on public.deployments for select to pugmark_reader using (true);

grant select, insert, update, delete on public.subjects, public.devices, public.deployments to pugmark_app;
grant select on public.subjects, public.devices, public.deployments to pugmark_reader;
